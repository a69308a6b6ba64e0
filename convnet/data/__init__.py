"""Data sets, and batches of them for training and evaluation.

```python
train, val = open_data(DataConfig(source="folder", path="images", size=(64, 64)))
stats = statistics(train)
loader = Loader(train, 128, seed=1, augment=AugmentConfig(mirror=True), stats=stats, train=True)
for batch in loader.epoch(0):
    ...
```
"""

from typing import TYPE_CHECKING

from convnet.common.deprecated import renamed_members
from convnet.common.lazy import lazy_members

if TYPE_CHECKING:
    from convnet.data.dataset import ArrayDataset, DataError, Dataset
    from convnet.data.folder.image_folder import FolderDataset
    from convnet.data.image import read_image
    from convnet.data.indexable import from_indexable
    from convnet.data.loader import Batch, Loader
    from convnet.data.packed.dataset import PackedDataset
    from convnet.data.pixel_statistics import statistics
    from convnet.data.sources import open_data
    from convnet.data.sums import Statistics
    from convnet.data.webdataset import WebDataset

__all__ = [
    "ArrayDataset",
    "Batch",
    "DataError",
    "Dataset",
    "FolderDataset",
    "Loader",
    "PackedDataset",
    "Statistics",
    "WebDataset",
    "from_indexable",
    "open_data",
    "read_image",
    "statistics",
]

_lazy = lazy_members(
    __name__,
    {
        "ArrayDataset": "convnet.data.dataset",
        "Batch": "convnet.data.loader",
        "DataError": "convnet.data.dataset",
        "Dataset": "convnet.data.dataset",
        "FolderDataset": "convnet.data.folder.image_folder",
        "Loader": "convnet.data.loader",
        "PackedDataset": "convnet.data.packed.dataset",
        "Statistics": "convnet.data.sums",
        "WebDataset": "convnet.data.webdataset",
        "from_indexable": "convnet.data.indexable",
        "open_data": "convnet.data.sources",
        "read_image": "convnet.data.image",
        "statistics": "convnet.data.pixel_statistics",
    },
)
__getattr__ = renamed_members(__name__, {"read_picture": "read_image"}, _lazy)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
