"""Server, client and command line. The client and the front import no torch, the front no tenseal."""
