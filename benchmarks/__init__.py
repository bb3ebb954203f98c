"""Every speed figure that the README quotes: `thex bench kernels`, `thex bench agreement`."""
