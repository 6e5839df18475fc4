"""The types of job that come with the product."""
