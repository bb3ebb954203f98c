"""What the server does under attack, as a report: `python -m tests.report`."""
