"""Which images are learned from and which are validated on."""

from workbench.data.catalog import Catalog
from workbench.training.recipe import Recipe
from workbench.training.sampling import hold_out


def split_for_training(catalog: Catalog, train_split: str, val_split: str, recipe: Recipe) -> tuple[Catalog, Catalog]:
    """The images to learn from and those to validate on.

    Where the catalog has no `val_split`, images of the training split are held out: as many of each class as the recipe
    validates on, at least one, by the recipe's seed.

    Args:
        catalog: all images of the run.
        train_split: the split to learn from.
        val_split: the split to validate on; other images of the same classes.
        recipe: decides how many images of a class are held out.

    Raises:
        ValueError: no such training split, or no class with images enough to hold some out.
    """
    train = catalog.select(split=train_split)
    if val_split and (catalog.frame["split"] == val_split).any():
        return train, catalog.select(split=val_split)
    return hold_out(train, recipe.validation_images_per_class or 1, recipe.seed)
