"""What generators built on pretrained diffusion models share: networks, guidance, schedulers, embedding noise."""
