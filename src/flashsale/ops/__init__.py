"""The commands of an operator, to see, steer and prove a sale from a shell; of `flashsale`, Django and Flask."""
