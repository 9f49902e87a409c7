"""Pure decisions that the sync and the asyncio API share: no Redis, no database, no waiting."""
