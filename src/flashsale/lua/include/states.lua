-- AHEAD: where an order may go from each state, in one step of TRANSITIONS (model/orders.py) or in several; from a
-- released one nowhere.
local AHEAD = {
  QUEUED = " PERSISTED CONFIRMED CANCELLED EXPIRED REJECTED DEAD ",
  PERSISTED = " CONFIRMED CANCELLED EXPIRED ",
  CONFIRMED = " CANCELLED ",
  DEAD = " QUEUED PERSISTED CONFIRMED CANCELLED EXPIRED REJECTED ",
  CANCELLED = "",
  EXPIRED = "",
  REJECTED = "",
}

-- RELEASED: the states in which an order holds no units.
local RELEASED = { CANCELLED = true, EXPIRED = true, REJECTED = true }
