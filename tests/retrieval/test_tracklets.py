import numpy as np
import pandas as pd
import pytest

from workbench.retrieval.tracklets import average_flip, pool_tracklets


def test_the_mean_of_a_picture_and_its_mirror_image_has_length_one() -> None:
    found = average_flip(np.array([[3.0, 0], [1, 0]]), np.array([[0.0, 0.5], [1, 0]]))
    np.testing.assert_allclose(found, [[0.5**0.5, 0.5**0.5], [1, 0]])
    assert average_flip(np.ones((1, 2), np.float32), np.ones((1, 2), np.float32)).dtype == np.float32


def test_mirror_images_must_be_there_and_not_cancel_out() -> None:
    with pytest.raises(ValueError, match="a mirror image for each picture"):
        average_flip(np.ones((2, 3)), np.ones((1, 3)))
    with pytest.raises(ValueError, match=r"row 1 of the mean of .* has length zero"):
        average_flip(np.array([[1.0, 0], [1, 0]]), np.array([[1.0, 0], [-1, 0]]))


def test_pictures_of_one_individual_and_camera_are_pooled() -> None:
    embedding = np.array([[2.0, 0], [0, 1], [0, 3], [1, 0], [0, 2], [0, 1]])
    pooled = pool_tracklets(embedding, list("bababb"), pd.array([1, 1, 1, 2, None, None], dtype="Int64"))
    half = 0.5**0.5
    assert pooled.labels.tolist() == ["b", "a", "a", "b"]
    assert pooled.cameras.tolist() == ["1", "1", "2", None]
    assert pooled.tracklet_N.tolist() == [0, 1, 0, 2, 3, 3]
    assert pooled.row_T.tolist() == [0, 1, 3, 4]
    assert pooled.num_images_T.tolist() == [2, 1, 1, 2]
    np.testing.assert_allclose(pooled.embedding_TD[:3], [[half, half], [0, 1], [1, 0]])


def test_without_cameras_pictures_are_pooled_by_label() -> None:
    pooled = pool_tracklets(np.eye(3, dtype=np.float32), np.array([7, "007", 7], dtype=object))
    assert pooled.labels.tolist() == ["7", "007"]
    assert pooled.embedding_TD.dtype == np.float32
    np.testing.assert_allclose(pooled.embedding_TD[0], [0.5**0.5, 0, 0.5**0.5])
