"""Networks, their activation functions, their cards, and models of other libraries."""
