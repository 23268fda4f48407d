"""Which images are learned from and which are validated on."""

from workbench.data.catalog import Catalog
from workbench.data.same_images import refuse_same_images
from workbench.training.folds import Fold, class_disjoint_fold, read_fold
from workbench.training.recipe import Recipe
from workbench.training.sampling import hold_out


def choose_parts(catalog: Catalog, splits: str, fold: str, recipe: Recipe) -> tuple[Catalog, Catalog, Fold | None]:
    """The images to learn from, those to validate on, and the fold whose classes are held out, if any.

    Args:
        catalog: all images of the run.
        splits: the split to learn from and, after a comma, the one to validate on.
        fold: such as `0/5` (see `folds.read_fold`): validation images are then held out of what is learned from; empty: none.
        recipe: see `split_for_training`.

    Raises:
        ValueError: as `read_fold`, `class_disjoint_fold` and `split_for_training`; a query of the fold is among its references.
    """
    train_split, val_split = (name.strip() for name in f"{splits},".split(",")[:2])
    if not fold:
        return *split_for_training(catalog, train_split, val_split, recipe), None
    num_folds, number, without = read_fold(fold)
    held = class_disjoint_fold(catalog, train_split, num_folds, number, without=without)
    refuse_same_images(held.references, held.queries, "remove copies that are filed under several groups")
    return *split_for_training(held.train, train_split, "", recipe), held


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
        ValueError: no such training split, no class with images enough to hold some out, or an image on both sides.
    """
    train = catalog.select(split=train_split)
    if val_split and (catalog.frame["split"] == val_split).any():
        validation = catalog.select(split=val_split)
        refuse_same_images(train, validation, f"name {train_split} alone, out of which images are then held")
        return train, validation
    return hold_out(train, recipe.validation_images_per_class or 1, recipe.seed)
