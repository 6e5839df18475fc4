"""What a call that was let in does: one file a kind of handling."""
