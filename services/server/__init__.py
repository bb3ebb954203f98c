"""The server: an asyncio front that parses and limits, and a spawned worker that computes."""
