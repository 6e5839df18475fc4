"""Durable subscriptions: their readers, retries, withheld deliveries, dead letters and health."""
