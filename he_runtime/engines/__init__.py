"""Three executions of one program: `plain` (simulator), `numba` (what the server runs), `seal` (reference in tests)."""
