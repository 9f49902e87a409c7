"""Pure decisions: no Redis, no database, no clock of its own."""
