"""Accept: each protocol turns its wire into calls, and replies into its wire. It decides nothing."""
