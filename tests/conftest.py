"""Eight CPU devices, strict promotion: set before jax starts."""

import contextlib
import math
import os
import resource
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# compiling is most of the tests' time, in subprocesses as well
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as the `satmip` command does
os.environ.setdefault("OMP_NUM_THREADS", "1")  # scikit-learn's, beside pytest's other workers
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # tests compile the same programs again and again
    _cache = tempfile.TemporaryDirectory(prefix="satmip-xla-")  # until this process ends
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _cache.name  # for workers and subprocesses as well
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
os.environ.setdefault(  # in subprocesses, as pyproject.toml has it for this one
    "PYTHONWARNINGS", "ignore:Error reading persistent compilation cache entry:UserWarning"
)

import hypothesis
import jax
import jaxtyping
import pytest

import tests.typechecking  # noqa: F401  # the hook finds it by name

# Shapes and dtypes of signatures are checked at every call, in these folders.
TYPED = ("models", "losses", "objectives", "augmentation", "evaluation")
jaxtyping.install_import_hook(
    [f"satmip_jax.{folder}" for folder in TYPED], "tests.typechecking.checked"
)

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

hypothesis.settings.register_profile("tests", deadline=None)  # a busy machine is no failure
hypothesis.settings.load_profile("tests")

REPOSITORY = Path(__file__).resolve().parents[1]


def import_torchvision() -> None:
    """Import torchvision, even if its compiled operators do not fit the installed torch."""
    torch = pytest.importorskip("torch")
    try:
        pytest.importorskip("torchvision")
    except RuntimeError:  # operator torchvision::nms does not exist
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", "(Tensor a, Tensor b, float c) -> Tensor")


def forward_of_views(towers, params, mesh, schema, batch):
    """A Forward whose stored images are views already: (batch, views, s, s, 3)."""
    from satmip_jax.augmentation.views import keys_of_images
    from satmip_jax.objectives import Forward

    keys = keys_of_images(jax.random.key(1), batch)
    return Forward(towers, params, keys, lambda images, _, view: images[:, view], mesh, schema)


def load_state(workdir: Path):
    """The whole training state in the newest checkpoint of a run, on the host."""
    from satmip_jax.checkpoints.manager import Checkpoints
    from satmip_jax.distributed.sharding import make_mesh
    from satmip_jax.training.step import build_program

    with Checkpoints(workdir, read_only=True) as checkpoints:
        config, schema = checkpoints.run()
        examples = schema.splits[config.data.train_split]
        program = build_program(config, schema, examples, make_mesh(jax.devices()[:1]))
        return jax.device_get(checkpoints.restore(program.abstract))


@contextlib.contextmanager
def full_disk(size):
    """No file may grow beyond `size` bytes: like a full disk, without being root.

    JAX's cache is not written to: which programs took long enough would depend on the load.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    option = "jax_persistent_cache_min_compile_time_secs"
    seconds = getattr(jax.config, option)
    jax.config.update(option, math.inf)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        jax.config.update(option, seconds)


@contextlib.contextmanager
def explicit_transfers():
    """Let the steps of a training fail at any transfer that the code does not ask for.

    An evaluation between two steps is free to move features.
    """
    from satmip_jax.training.loop import Trainer

    def guarded(method, level):
        def call(*args, **options):
            with jax.transfer_guard(level):
                return method(*args, **options)

        return call

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_take_steps", guarded(Trainer._take_steps, "disallow"))
        patch.setattr(Trainer, "_score", guarded(Trainer._score, "allow"))
        yield


def use_one_device(patch: pytest.MonkeyPatch) -> None:
    """Let every module that makes a mesh make one of a single device."""
    from satmip_jax.distributed import sharding
    from satmip_jax.studies import runner  # noqa: F401  # so that all who make one are imported

    mesh = sharding.make_mesh(jax.devices()[:1])
    for name, module in list(sys.modules.items()):
        if name.startswith("satmip_jax.") and hasattr(module, "make_mesh"):
            patch.setattr(module, "make_mesh", lambda *_, **__: mesh)


@pytest.fixture
def no_type_checks():
    """Turn off the checks of shapes and dtypes, for a test of the package's error messages."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images and records, where there is one."""
    folder = Path(os.environ.get("SATMIP_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: set SATMIP_DATA to a folder that holds it")
    return folder


@pytest.fixture(scope="session")
def tiny_shards_dir(tmp_path_factory) -> Path:
    """Synthetic scenes as shards of 32 px: 64 to train, 24 to validate."""
    from satmip_jax.prepare.run import prepare
    from satmip_jax.sources.registry import open_source

    folder = tmp_path_factory.mktemp("tiny")
    source = open_source("synthetic", [folder / "scenes"], train=64, val=24, size=48, seed=0)
    prepare(source, folder / "shards", image_size=32, workers=0, shard_size=24, progress=False)
    return folder / "shards"


@pytest.fixture(scope="session")
def tiny_shards(tiny_shards_dir):
    """The train split of `tiny_shards_dir`."""
    from satmip_jax.data.shard_dataset import ShardDataset

    return ShardDataset(tiny_shards_dir, "train")


TINY = (
    "--config.image.size=32",
    "--config.image.encoder=mu/8",
    "--config.metadata.width=16",
    "--config.metadata.heads=2",
    "--config.metadata.depth=1",
    "--config.method.ssl_hidden=16",
    "--config.method.ssl_dim=8",
    "--config.method.embed_dim=8",
    "--config.optimizer.batch_size=16",
    "--config.optimizer.images=64",
    "--config.checkpoint.every=2",
    "--config.log_every=1",
    "--config.eval.batch_size=16",
)


@pytest.fixture(scope="session")
def tiny_config(tiny_shards_dir):
    """Make the config of a run of 4 steps: `tiny_config("simclr", "--config.seed=1")`."""
    from satmip_jax.config.loading import load_config

    def make(method="satmips", *overrides):
        data = f"--config.data.dir={tiny_shards_dir}"
        path = REPOSITORY / "configs" / "eurosat.py"
        return load_config(f"{path}:{method},cpu", [*TINY, data, *overrides])

    return make


@pytest.fixture(scope="session")
def tiny_run(tiny_config, tmp_path_factory) -> Path:
    """Workdir of a finished run of 4 steps on 8 devices, with kNN scores at the end."""
    from satmip_jax.training.loop import train

    workdir = tmp_path_factory.mktemp("run")
    with explicit_transfers():
        train(tiny_config("satmips", "--config.eval.every=4"), workdir)
    return workdir


@pytest.fixture(scope="session")
def bucket_server():
    """A Google Cloud Storage with one bucket on the loopback interface; see `tests.buckets`."""
    pytest.importorskip("gcp_storage_emulator")
    from tests.buckets import Store

    store = Store()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in store.environment().items():
            patch.setenv(name, value)
        pytest.importorskip("gcsfs")  # it reads the variables when it is imported
        yield store
    store.close()


@pytest.fixture(scope="session")
def s3():
    """The URL of a bucket of S3 on the loopback interface; needs the extra `test-s3`."""
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "test")
        import boto3

        boto3.client("s3").create_bucket(Bucket="bucket")
        yield "s3://bucket"
    server.stop()


@pytest.fixture
def bucket(bucket_server, request):
    """The URL of a folder of the bucket that is this test's own."""
    return bucket_server.folder(request.node.name)


@pytest.fixture(scope="session")
def tiny_embeddings(tiny_run, tiny_shards_dir, tmp_path_factory) -> Path:
    """The file of embeddings of the tiny run's val split, beside its images."""
    from satmip_jax.data.shard_dataset import ShardDataset
    from satmip_jax.evaluation.features import extract
    from satmip_jax.evaluation.loading import load_model
    from satmip_jax.inference.embed.run import describe_model
    from satmip_jax.inference.embed.writer import Row, to_table, write_table
    from satmip_jax.inference.embedding import EmbeddingModel

    folder, dataset = tmp_path_factory.mktemp("embedded"), ShardDataset(tiny_shards_dir, "val")
    model = load_model(tiny_run)
    features, rows = extract(model, dataset), []
    for number in features.indices:
        record, path = dataset[int(number)], folder / f"scene-{number}.jpg"
        path.write_bytes(record["image"])
        label = dataset.schema.classes[record["label"]]
        values = record["metadata"].values
        rows.append(Row(f"scene-{number}", str(path), label=label, values=values))
    info = {"version": "1", **describe_model(EmbeddingModel(model)), "rendering": {}, "inputs": {}}
    table = to_table(rows, features.by_kind["image"], features.by_kind["metadata"])
    write_table(folder / "embeddings.parquet", [table], info)
    return folder / "embeddings.parquet"
