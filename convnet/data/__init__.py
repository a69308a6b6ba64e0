"""Data sets, and batches of them for training and evaluation.

```python
train, val = open_data(DataConfig(source="folder", path="images", size=(64, 64)))
stats = statistics(train)
loader = Loader(train, 128, seed=1, augment=AugmentConfig(mirror=True), stats=stats, train=True)
for batch in loader.epoch(0):
    ...
```
"""

from convnet.common.deprecated import renamed_members
from convnet.data.dataset import ArrayDataset, DataError, Dataset
from convnet.data.folder.image_folder import FolderDataset
from convnet.data.image import read_image
from convnet.data.indexable import from_indexable
from convnet.data.loader import Batch, Loader
from convnet.data.packed.dataset import PackedDataset
from convnet.data.sources import open_data
from convnet.data.statistics import statistics
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

__getattr__ = renamed_members(__name__, {"read_picture": "read_image"})
