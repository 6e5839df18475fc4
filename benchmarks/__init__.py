"""Measures the product and its peers on the same work in one run; `script/bench` runs it."""
