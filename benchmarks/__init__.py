"""Every speed figure that the README quotes: `thex bench`; see benchmarks/README.md for how to rerun and read them."""
