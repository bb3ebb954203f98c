"""`thex report`: every step of the workflow measured, for several tasks, recipes and seeds."""
