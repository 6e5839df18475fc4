"""Who calls: consumers, and the tiers that say how much they may."""
