"""Building blocks of generators with pretrained diffusion models: networks, guidance, schedulers, embedding noise."""
