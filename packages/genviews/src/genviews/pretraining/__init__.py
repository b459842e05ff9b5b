"""Train an encoder: data, views, pair weights, the loop."""
