"""A sweep's recipe: read, refused, kept beside the results, and the same again from what was kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmms_topoprune.errors import InputError, OptionError
from lmms_topoprune.sweep.recipe import RECIPE, Recipe, model_args

TEXT = """
models:
  - pretrained: some/folder
    dtype: bfloat16
  - model: qwen2_vl
    pretrained: owner/name
criteria: [topology, "reverse:cosine"]
sparsities: 0.25
seeds: [0, 1]
repairs: [none, linear]
tasks: topoprune
limit: 8
options: {samples: 64}
"""


@pytest.fixture
def write(tmp_path):
    def write(text: str) -> Path:
        path = tmp_path / "mine.yaml"
        path.write_text(text)
        return path

    return write


def test_a_recipe_is_read_with_single_values_as_lists(write):
    recipe = Recipe.load(write(TEXT))
    assert [model["model"] for model in recipe.models] == ["dense_llava", "dense_qwen2_vl"]
    assert model_args(recipe.models[0]) == "pretrained=some/folder,dtype=bfloat16"
    assert (recipe.sparsities, recipe.tasks, recipe.batch_size) == ((0.25,), ("topoprune",), 16)
    assert len(recipe.grid.points()) == 2 * 2 * 2
    assert recipe.grid.points()[0].options(recipe.options).samples == 64


def test_what_is_saved_is_the_same_recipe(write, tmp_path):
    recipe = Recipe.load(write(TEXT))
    recipe.save(tmp_path / RECIPE)
    assert Recipe.load(tmp_path / RECIPE) == recipe


def test_several_models_have_a_folder_each(tmp_path):
    one = Recipe(models=[{"pretrained": "a/x"}])
    assert one.folders(tmp_path) == [tmp_path]
    names = ["a/x", "b/x", "embedded"]
    several = Recipe(models=names)
    assert [folder.name for folder in several.folders(tmp_path)] == ["x-1", "x-2", "embedded"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("criterai: [cosine]", "is 'criterai'; allowed: .*; did you mean 'criteria'"),
        ("criteria: [cosin]", "criterion is 'cosin'; allowed: .*; did you mean 'cosine'"),
        ("sparsities: [most]", "sparsities is .'most'.; allowed: numbers, one or a list of them"),
        ("sparsities: [1.5]", "sparsity is 1.5; allowed: 0 < sparsity < 1"),
        ("seeds: [0.5]", "seeds is .0.5.; allowed: whole numbers"),
        ("models: [{model: lava}]", "model is 'lava'; allowed: .*; did you mean 'llava'"),
        ("repairs: [lineal]", "repair is 'lineal'; allowed: .*; did you mean 'linear'"),
        ("limit: many", "limit is 'many'; allowed: a number"),
        ("batch_size: auto", "batch_size is 'auto'; allowed: whole numbers from 1"),
        ("options: {sample: 3}", "option is 'sample'; allowed: .*; did you mean 'samples'"),
        ("- cosine", "holds .'cosine'.; allowed: keys such as"),
        ("a: [", "is not valid YAML"),
    ],
)
def test_a_mistake_is_one_sentence(write, text, sentence):
    with pytest.raises((OptionError, InputError), match=sentence) as error:
        Recipe.load(write(text))
    assert "\n" not in str(error.value)


def test_a_recipe_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="cannot be read: No such file or directory"):
        Recipe.load(tmp_path / "none.yaml")


def test_a_path_is_as_good_as_text(tmp_path):
    """As `model_path()` and `tasks_path()` give it."""
    recipe = Recipe(models=[{"pretrained": tmp_path / "model"}], include_path=tmp_path)  # type: ignore[arg-type]
    recipe.save(tmp_path / "recipe.yaml")
    assert Recipe.load(tmp_path / "recipe.yaml") == recipe
    assert recipe.models[0]["pretrained"] == str(tmp_path / "model")
    assert Recipe(models=[tmp_path]).models[0]["pretrained"] == str(tmp_path)  # type: ignore[list-item]
