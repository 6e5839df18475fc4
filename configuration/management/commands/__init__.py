"""The commands `apply`, `export`, `import` and `rollback`."""
