"""Pure decisions that both faces share: no Redis, no database, no waiting."""
