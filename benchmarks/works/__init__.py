"""The works that are measured, one module for each kind; ``WORKS`` in ``benchmarks.works.all`` lists them."""
