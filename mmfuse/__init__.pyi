"""What `import mmfuse` has, with its types; `__init__.py` reads its names from here."""

__version__: str

# The commands as functions.
from pipelines.audit.audit import audit as audit
from pipelines.contracts.encoder import check_encoder as check_encoder
from pipelines.contracts.encoder import is_encoder as is_encoder
from pipelines.contracts.head import check as check
from pipelines.data.sources import new_rows as new_rows
from pipelines.data.sources import open_dataset as open_dataset
from pipelines.encoding.encoder import build_encoder as build_encoder
from pipelines.evaluation.evaluate import evaluate as evaluate
from pipelines.evaluation.predict import predict as predict
from pipelines.evaluation.unlabelled import predict_unlabelled as predict_unlabelled
from pipelines.extract.extract import extract as extract
from pipelines.model import Model as Model
from pipelines.model import fit as fit
from pipelines.extract.plan import plan as plan
from pipelines.extract.plan import serving_encoders as serving_encoders
from pipelines.extract.recompute import Recomputed as Recomputed
from pipelines.extract.recompute import complete_plans as complete_plans
from pipelines.extract.recompute import recompute as recompute
from pipelines.features.arrays import features as features
from pipelines.reports.compare import compare as compare
from pipelines.reports.html import report as report
from pipelines.training.sweep import sweep as sweep
from pipelines.training.train import best_of as best_of
from pipelines.training.train import train as train
from pipelines.training.train import train_all as train_all

# The cache: features and runs, export and import.
from cache.exchange.hdf5 import export_hdf5 as export_hdf5
from cache.exchange.hdf5 import import_hdf5 as import_hdf5
from cache.exchange.import_arrays import ImportSource as ImportSource
from cache.exchange.import_arrays import import_arrays as import_arrays
from cache.exchange.pack import pack as pack
from cache.exchange.unpack import unpack as unpack
from cache.feature_store import FeatureStore as FeatureStore
from cache.layout import Home as Home
from cache.maintenance.gc import collect_garbage as collect_garbage
from cache.maintenance.gc import plan_gc as plan_gc
from cache.maintenance.repair import extract_commands as extract_commands
from cache.maintenance.repair import repair as repair
from cache.maintenance.verify import verify as verify
from cache.runs import RunRecord as RunRecord
from cache.runs import delete_run as delete_run
from cache.runs import label_run as label_run
from cache.runs import latest_group as latest_group
from cache.runs import list_runs as list_runs
from cache.runs import load_run as load_run
from cache.runs import new_id as new_id
from cache.storage.objects import put as put
from cache.storage.objects import user_errors as user_errors

# Types of arguments and results.
from cache.errors import MmfuseError as MmfuseError
from cache.errors import unknown as unknown
from cache.samples import KINDS as KINDS
from cache.samples import Modality as Modality
from cache.samples import Samples as Samples
from cache.samples import Task as Task
from pipelines.contracts.result import Check as Check
from pipelines.data.columns import parse_modality as parse_modality
from pipelines.data.dataset import Dataset as Dataset
from pipelines.data.table_files import read_table as read_table
from pipelines.data.tables import TableOptions as TableOptions
from pipelines.data.tables import store_name as store_name
from pipelines.extract.options import ExtractOptions as ExtractOptions
from pipelines.features.arrays import Features as Features
from pipelines.features.missing import MissingPattern as MissingPattern
from pipelines.metrics.metrics import check_metric as check_metric
from pipelines.reports.table import Column as Column
from pipelines.reports.notes import training_ends as training_ends
from pipelines.reports.table import Table as Table
from pipelines.reports.table import bytes_text as bytes_text
from pipelines.reports.table import count_of as count_of
from pipelines.reports.table import printable as printable
from pipelines.reports.table import printable_json as printable_json
from pipelines.training.loop import Epoch as Epoch
from pipelines.training.plan import Plan as Plan

# For the file of a method or an encoder.
from pipelines.counter_rng import dropout as dropout
from pipelines.encoding.encoder import Encoder as Encoder
from pipelines.features.table import Batch as Batch
from pipelines.fusion import losses as losses
from pipelines.fusion.head import Fused as Fused
from pipelines.fusion.head import FusionHead as FusionHead
from pipelines.fusion.head import Inputs as Inputs
from pipelines.fusion.head import Stage as Stage
from pipelines.fusion.layers import BatchNorm as BatchNorm
from pipelines.fusion.layers import Clean as Clean
from pipelines.fusion.layers import Tokens as Tokens
from pipelines.fusion.layers import pooled as pooled
from pipelines.fusion.layers import present_mean as present_mean
from pipelines.fusion.stems import stems_of as stems_of
from pipelines.media.payloads import Frames as Frames
from pipelines.media.payloads import Unreadable as Unreadable
from pipelines.media.payloads import Waveform as Waveform

# Modules of tables: `runs.train_table`, `listing.encoders` and so on.
from pipelines import catalog as catalog
from pipelines.reports import doctor as doctor
from pipelines.reports import extraction as extraction
from pipelines.reports import listing as listing
from pipelines.reports import predictions as predictions
from pipelines.reports import recall as recall
from pipelines.reports import runs as runs
from pipelines.reports import table as table
