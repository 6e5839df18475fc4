"""The servers that the product is compared with, each if it is installed."""
