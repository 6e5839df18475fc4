"""A configuration, an upstream and a sensor that show the product moving within a minute."""
