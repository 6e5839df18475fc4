"""The product under mixed traffic, churn, kills and changes for as long as one likes: ``script/soak``."""
