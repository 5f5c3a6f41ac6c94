"""Shows what a training came to: what was found of the model, the plots of it, and the page that holds them."""
