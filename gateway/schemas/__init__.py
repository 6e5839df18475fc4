"""Schemas of the registry as the data plane knows them: what they are, how they are told apart, what they accept."""
