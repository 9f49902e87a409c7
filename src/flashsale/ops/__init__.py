"""The commands of an operator: to see, steer and prove a sale. `flashsale`, Django and Flask share them."""
