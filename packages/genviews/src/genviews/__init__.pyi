from .api import embed, evaluate, generate, inspect, list_recipes, pack, pretrain, quickstart, train_generator
from .recipes import RECIPES, Recipe, get_recipe

__all__ = [
    "RECIPES",
    "Recipe",
    "embed",
    "evaluate",
    "generate",
    "get_recipe",
    "inspect",
    "list_recipes",
    "pack",
    "pretrain",
    "quickstart",
    "train_generator",
]
