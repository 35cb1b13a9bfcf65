"""The files that start clusters are valid, agree with each other, and name what is there."""

from __future__ import annotations

import copy
import functools
import importlib
import json
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from earthmap.pipeline.job import STORAGE

ROOT = Path(__file__).parents[1]
KUBERAY = ROOT / "jobs" / "kuberay"
SCHEMAS = ROOT.parent / "shared" / "data" / "19_schemas" / "kuberay"
FILES = {"RayJob": ("rayjob.yaml", "rayClusterSpec"), "RayService": ("rayservice.yaml", "rayClusterConfig")}
"""File of each kind, and under which key it has its cluster."""

ROLES = ("reader", "predictor")


def launcher() -> dict[str, Any]:
    """What `ray up` is given."""
    found: dict[str, Any] = yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8"))
    return found


def documents(kind: str) -> list[dict[str, Any]]:
    """All that the file of `kind` holds."""
    found = yaml.safe_load_all((KUBERAY / FILES[kind][0]).read_text(encoding="utf-8"))
    return [one for document in found for one in document.get("items", [document])]


def resource(kind: str) -> dict[str, Any]:
    """The one resource of `kind`."""
    (found,) = (document for document in documents(kind) if document["kind"] == kind)
    return found


def cluster_of(kind: str) -> dict[str, Any]:
    """Its cluster."""
    found: dict[str, Any] = resource(kind)["spec"][FILES[kind][1]]
    return found


def pods(kind: str) -> dict[str, dict[str, Any]]:
    """Specifications of its pods, by what they are."""
    spec, cluster = resource(kind)["spec"], cluster_of(kind)
    found = {"head": cluster["headGroupSpec"]["template"]["spec"]}
    found |= {group["groupName"]: group["template"]["spec"] for group in cluster["workerGroupSpecs"]}
    found |= {one["metadata"]["name"]: one["spec"]["template"]["spec"] for one in deployments(kind)}
    return found | ({"submitter": spec["submitterPodTemplate"]["spec"]} if "submitterPodTemplate" in spec else {})


def deployments(kind: str) -> list[dict[str, Any]]:
    """What stands beside the cluster."""
    return [document for document in documents(kind) if document["kind"] == "Deployment"]


def containers(kind: str) -> list[dict[str, Any]]:
    """All containers of its pods."""
    return [one for pod in pods(kind).values() for one in (*pod.get("initContainers", ()), *pod["containers"])]


def images() -> set[str]:
    """Every image that is named anywhere."""
    return {launcher()["docker"]["image"], *(one["image"] for kind in FILES for one in containers(kind))}


# ── ray up ───────────────────────────────────────────────────────────────────────────────────────────────────


def validate_launcher(config: dict[str, Any]) -> None:
    """As `ray up` does before it asks a cloud for anything."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(config))


def test_ray_itself_finds_the_cluster_file_valid() -> None:
    validate_launcher(launcher())


def _without_head(config: dict[str, Any]) -> None:
    config["head_node_type"] = "heart"


def _misspelt(config: dict[str, Any]) -> None:
    config["idle_timeout_minuets"] = 10


def _resource_of_words(config: dict[str, Any]) -> None:
    config["available_node_types"]["reader"]["resources"] = {"reader": "many"}


def _too_many(config: dict[str, Any]) -> None:
    config["available_node_types"]["reader"]["min_workers"] = config["max_workers"] + 1


@pytest.mark.parametrize("spoil", [_without_head, _misspelt, _resource_of_words, _too_many])
def test_a_spoilt_cluster_file_is_refused(spoil: Callable[[dict[str, Any]], None]) -> None:
    config = launcher()
    spoil(config)
    with pytest.raises((jsonschema.ValidationError, ValueError)):
        validate_launcher(config)


@functools.cache
def _machines_of_amazon() -> Any:
    """What EC2 takes for a machine, as botocore knows it."""
    session = pytest.importorskip("botocore.session").get_session()
    return session.get_service_model("ec2").operation_model("RunInstances").input_shape


def _faults_of(node_config: dict[str, Any]) -> str:
    from botocore.validate import ParamValidator

    shape = _machines_of_amazon()
    found = ParamValidator().validate({**node_config, "MinCount": 1, "MaxCount": 1}, shape).generate_report()
    known = node_config["InstanceType"] in shape.members["InstanceType"].enum
    return str(found) or ("" if known else "no such machine")


def test_amazon_has_such_machines() -> None:
    from ray.autoscaler._private.aws.config import DEFAULT_AMI

    config = launcher()
    assert config["provider"]["region"] in DEFAULT_AMI
    for name, node in config["available_node_types"].items():
        assert _faults_of(node["node_config"]) == "", name
        assert _faults_of({**node["node_config"], "InstanceMarketOption": {}})
        assert _faults_of({**node["node_config"], "IamInstanceProfile": "earthmap"})
        assert _faults_of({**node["node_config"], "InstanceType": "m7i.tiny"})


def test_what_the_commands_of_the_cluster_file_say_is_understood_by_this_ray() -> None:
    from ray.scripts.scripts import cli

    lines = [*launcher()["head_start_ray_commands"], *launcher()["worker_start_ray_commands"]]
    for line in (part.strip() for whole in lines for part in whole.split(";")):
        if not line.startswith("ray "):
            assert line.startswith("ulimit ")
            continue
        _, verb, *flags = line.replace("$RAY_HEAD_IP", "10.0.0.1").split()
        command = cli.commands[verb]
        command.make_context(verb, flags)  # raises for a flag that there is not


# ── Kubernetes ───────────────────────────────────────────────────────────────────────────────────────────────


@functools.cache
def definition(kind: str) -> jsonschema.Draft202012Validator:
    """KubeRay's schema of `kind`, as strict as the server is when it is asked to be: fields that it does not know are
    faults."""
    path = SCHEMAS / f"ray.io_{kind.lower()}s.yaml"
    if not path.exists():
        pytest.skip("KubeRay's resource definitions are not there")
    loaded = yaml.load(path.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    (version,) = (one for one in loaded["spec"]["versions"] if one["name"] == "v1")
    schema: dict[str, Any] = version["schema"]["openAPIV3Schema"]
    _make_strict(schema)
    return jsonschema.Draft202012Validator(schema)


def _make_strict(schema: Any) -> None:
    if isinstance(schema, list):
        for part in schema:
            _make_strict(part)
    elif isinstance(schema, dict):
        closed = "properties" in schema and "additionalProperties" not in schema
        if closed and schema.get("type") == "object" and not schema.get("x-kubernetes-preserve-unknown-fields"):
            schema["additionalProperties"] = False
        for part in schema.values():
            _make_strict(part)


@pytest.mark.parametrize("kind", FILES)
def test_kuberay_finds_the_file_valid(kind: str) -> None:
    found = resource(kind)
    assert found["apiVersion"] == "ray.io/v1"
    definition(kind).validate(found)


def _role_misspelt(found: dict[str, Any], cluster: dict[str, Any]) -> None:
    cluster["workerGroupSpecs"][0]["minReplica"] = 1


def _port_of_words(found: dict[str, Any], cluster: dict[str, Any]) -> None:
    cluster["headGroupSpec"]["template"]["spec"]["containers"][0]["ports"][0]["containerPort"] = "gcs"


def _unknown_mode(found: dict[str, Any], cluster: dict[str, Any]) -> None:
    cluster["authOptions"]["mode"] = "open"


def _no_template(found: dict[str, Any], cluster: dict[str, Any]) -> None:
    del cluster["workerGroupSpecs"][1]["template"]


def _misspelt_context(found: dict[str, Any], cluster: dict[str, Any]) -> None:
    pod = cluster["workerGroupSpecs"][0]["template"]["spec"]
    pod["containers"][0]["securityContext"] = {"readOnlyRootFileSystem": True}


def _unknown_key(found: dict[str, Any], cluster: dict[str, Any]) -> None:
    found["spec"]["entrypointt"] = "python"


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize(
    "spoil", [_role_misspelt, _port_of_words, _unknown_mode, _no_template, _misspelt_context, _unknown_key]
)
def test_a_spoilt_file_is_refused(kind: str, spoil: Callable[[dict[str, Any], dict[str, Any]], None]) -> None:
    found = json.loads(json.dumps(resource(kind)))  # what YAML's anchors share is told apart
    spoil(found, found["spec"][FILES[kind][1]])
    with pytest.raises(jsonschema.ValidationError):
        definition(kind).validate(found)


def scaled(kind: str) -> dict[str, Any]:
    """Node types that Ray's autoscaler makes of the file's cluster."""
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

    found = {"metadata": {"namespace": "default", "name": "earthmap"}, "spec": cluster_of(kind)}
    types: dict[str, Any] = _derive_autoscaling_config_from_ray_cr(copy.deepcopy(found))["available_node_types"]
    return {"head": types.pop("headgroup"), **types}


# ── the files together ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", FILES)
def test_the_roles_are_the_same_everywhere(kind: str) -> None:
    ours, theirs = launcher()["available_node_types"], scaled(kind)
    assert tuple(theirs) == tuple(ours) == ("head", *ROLES)
    for name in ours:
        marks = {role: theirs[name]["resources"].get(role) for role in ROLES}
        assert marks == {role: ours[name]["resources"].get(role) for role in ROLES}, name
        limits = ("min_workers", "max_workers")
        assert [theirs[name][limit] for limit in limits] == [ours[name][limit] for limit in limits], name
    assert sum(theirs[role]["max_workers"] for role in ROLES) == launcher()["max_workers"]


@pytest.mark.parametrize("kind", FILES)
def test_the_head_offers_all_roles_and_takes_no_work(kind: str) -> None:
    for head in (scaled(kind)["head"], launcher()["available_node_types"]["head"]):
        assert head["resources"]["CPU"] == 0
        assert all(head["resources"][role] == 1 for role in ROLES)
        assert head["resources"].get("GPU", 0) == 0


@pytest.mark.parametrize("kind", FILES)
def test_predictors_alone_have_gpus(kind: str) -> None:
    gpus = {name: node["resources"].get("GPU", 0) for name, node in scaled(kind).items()}
    assert gpus == {"head": 0, "reader": 0, "predictor": 1}


def test_machines_are_named_in_one_place_of_the_cluster_file() -> None:
    types = launcher()["available_node_types"]
    machines = [node["node_config"]["InstanceType"] for node in types.values()]
    without = {
        **launcher(),
        "available_node_types": {name: {**node, "node_config": {}} for name, node in types.items()},
    }
    assert not any(machine in json.dumps(without) for machine in machines)
    assert all(machine not in (KUBERAY / file).read_text() for machine in machines for file, _ in FILES.values())


def test_workers_may_be_spot_machines_and_the_head_is_none() -> None:
    types = launcher()["available_node_types"]
    spot = {name for name, node in types.items() if "InstanceMarketOptions" in node["node_config"]}
    assert spot == set(ROLES)
    for kind in FILES:
        tolerant = {
            name
            for name, pod in pods(kind).items()
            if any("spot" in str(toleration) for toleration in pod.get("tolerations", ()))
        }
        assert tolerant == set(ROLES), kind


def test_all_name_one_image_of_the_ray_and_python_that_the_package_asks_for() -> None:
    (image,) = images()
    tag = re.fullmatch(r"[\w./-]+:(?P<own>[\d.]+)-ray(?P<ray>[\d.]+)-py(?P<python>\d{3})", image)
    assert tag is not None, image
    import earthmap

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = {one.name: one.specifier for one in map(Requirement, project["dependencies"])}
    assert tag["own"] == earthmap.__version__
    assert tag["ray"] in asked["ray"]
    assert f"{tag['python'][0]}.{tag['python'][1:]}" in SpecifierSet(project["requires-python"])
    for kind in FILES:
        assert cluster_of(kind)["rayVersion"] == tag["ray"]
    page = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    assert f"FROM rayproject/ray:{tag['ray']}-py{tag['python']}\n" in page, "the image that the page says how to build"
    assert image in page


def _environment(options: list[str]) -> dict[str, str]:
    return dict(option.removeprefix("--env=").split("=", 1) for option in options if option.startswith("--env="))


def test_every_node_asks_for_the_token() -> None:
    config = launcher()
    assert _environment(config["docker"]["run_options"])["RAY_AUTH_MODE"] == "token"
    assert config["file_mounts"] == {"/home/ray/.ray/auth_token": "~/.ray/auth_token"}
    assert not any("dashboard-host" in line for line in config["head_start_ray_commands"]), "it stays on loopback"
    for kind in FILES:
        assert cluster_of(kind)["authOptions"]["mode"] == "token"


def test_the_storage_is_one_setting_that_every_node_has() -> None:
    storage = _environment(launcher()["docker"]["run_options"])[STORAGE]
    text = (ROOT / "cluster.yaml").read_text(encoding="utf-8")
    assert text.count(storage) == 1
    for kind in FILES:
        text = (KUBERAY / FILES[kind][0]).read_text(encoding="utf-8")
        assert text.count(storage) == 1, kind
        for container in containers(kind):
            assert {"name": STORAGE, "value": storage} in container["env"], container["name"]
        assert {"name": STORAGE, "value": storage} in cluster_of(kind)["autoscalerOptions"]["env"]


@pytest.mark.parametrize("kind", FILES)
def test_pods_are_confined(kind: str) -> None:
    for name, pod in pods(kind).items():
        assert pod["securityContext"]["runAsNonRoot"], name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not ({"hostNetwork", "hostPID", "hostIPC"} & pod.keys())
        assert all("hostPath" not in volume for volume in pod["volumes"])
        assert name == "head" or pod["automountServiceAccountToken"] is False
    confined = [*containers(kind), cluster_of(kind)["autoscalerOptions"]]
    for container in confined:
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert {"name": "scratch", "mountPath": "/tmp"} in container["volumeMounts"]
        assert {"cpu", "memory"} <= container["resources"]["limits"].keys()
        assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
    for name, pod in pods(kind).items():
        assert name == "submitter" or {"livenessProbe", "readinessProbe"} <= pod["containers"][0].keys(), name


def _texts(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, part in value.items():
            yield from _texts(part, f"{path}.{name}")
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part, path)
    else:
        yield path, str(value)


def test_no_file_holds_a_secret() -> None:
    for found in (launcher(), *(document for kind in FILES for document in documents(kind))):
        assert found.get("kind") != "Secret"
        for path, text in _texts(found):
            assert not re.search(r"AKIA|BEGIN [A-Z ]*PRIVATE|://[^/@\s]+:[^/@\s]+@|[0-9a-fA-F]{32}", text), path
            assert not re.search(r"(?i)SECRET|PASSWORD|ACCESS_KEY|AUTH_TOKEN=", text), path


# ── what they name is there ──────────────────────────────────────────────────────────────────────────────────

INSIDE = "/home/ray/earthmap/"
"""Where the image has this repository."""


def test_the_entry_point_of_the_run_is_there_and_its_job_is_understood(tmp_path: Path) -> None:
    from earthmap.pipeline import read_job

    spec = resource("RayJob")["spec"]
    python, script, job = spec["entrypoint"].split()
    assert python == "python"
    assert (ROOT / script.removeprefix(INSIDE)).is_file()
    assert f"COPY --chown=ray . {INSIDE.rstrip('/')}\n" in (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    mounted = {
        f"{mount['mountPath']}/{name}": content
        for volume in pods("RayJob")["head"]["volumes"]
        if "configMap" in volume
        for mount in pods("RayJob")["head"]["containers"][0]["volumeMounts"]
        if mount["name"] == volume["name"]
        for found in documents("RayJob")
        if found["kind"] == "ConfigMap" and found["metadata"]["name"] == volume["configMap"]["name"]
        for name, content in found["data"].items()
    }
    (tmp_path / "job.yaml").write_text(mounted[job])
    assert [query.task for query in read_job(tmp_path / "job.yaml").queries] == ["segment"]


def _applications() -> list[dict[str, Any]]:
    """The models of the service, as Ray Serve reads them."""
    from ray.serve.schema import ServeApplicationSchema, ServeDeploySchema

    told = ServeDeploySchema.model_validate(yaml.safe_load(resource("RayService")["spec"]["serveConfigV2"]))
    assert told.proxy_location == "Disabled", "nothing listens"
    known = ServeApplicationSchema.model_fields.keys()  # Ray Serve itself says nothing of a word that it does not know
    written = yaml.safe_load(resource("RayService")["spec"]["serveConfigV2"])["applications"]
    assert all(one.keys() <= known for one in written)
    return [one.model_dump(exclude_unset=True) for one in told.applications]


def test_a_misspelt_application_is_refused() -> None:
    from ray.serve.schema import ServeDeploySchema

    told = yaml.safe_load(resource("RayService")["spec"]["serveConfigV2"])
    for spoilt in ({"import_path": "no colon"}, {"args": "no mapping"}, {"name": None}):
        with pytest.raises(ValueError, match="validation error"):
            ServeDeploySchema.model_validate(told | {"applications": [told["applications"][0] | spoilt]})


def _api() -> dict[str, Any]:
    """The container of the service itself."""
    (deployment,) = deployments("RayService")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    found: dict[str, Any] = container
    return found


def test_the_command_of_the_service_is_understood() -> None:
    from earthmap.cli import _parsed

    program, *words = _api()["command"]
    assert program == "earthmap"
    told = _parsed([word.replace("$(POD_IP)", "10.0.0.5") for word in words])
    assert told.command == "serve"
    name, _, port = told.cluster.partition(":")
    assert name == f"{resource('RayService')['metadata']['name']}-head-svc", "as KubeRay names the head's"
    head = pods("RayService")["head"]["containers"][0]
    assert int(port) in {one["containerPort"] for one in head["ports"]}
    assert told.port in {one["containerPort"] for one in _api()["ports"]}
    assert _api()["readinessProbe"]["httpGet"]["port"] == told.port
    (deployment,) = deployments("RayService")
    (first,) = deployment["spec"]["template"]["spec"]["initContainers"]
    assert f"earthmap token list --state {told.state} " in first["command"][-1]


def test_the_service_reaches_its_cluster_with_its_token() -> None:
    given = {one["name"]: one for one in _api()["env"]}
    assert given["RAY_AUTH_MODE"]["value"] == "token"
    kept = given["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"]
    assert kept == {"name": cluster_of("RayService")["authOptions"]["secretName"], "key": "auth_token"}
    assert f"kubectl create secret generic {kept['name']} " in (ROOT / "docs" / "cluster.md").read_text(
        encoding="utf-8"
    )
    (service,) = (one for one in documents("RayService") if one["kind"] == "Service")
    (deployment,) = deployments("RayService")
    assert service["spec"]["selector"] == deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"]
    (claim,) = (one for one in documents("RayService") if one["kind"] == "PersistentVolumeClaim")
    (state,) = (one for one in deployment["spec"]["template"]["spec"]["volumes"] if "persistentVolumeClaim" in one)
    assert state["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]


def test_the_models_of_the_service_are_built_and_are_those_that_it_offers_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from earthmap.cli import _parsed
    from earthmap.service.replicas import ReplicaOptions, _application, spec_of

    told = _parsed([word.replace("$(POD_IP)", "10.0.0.5") for word in _api()["command"][1:]])
    options = ReplicaOptions(most=told.replicas, gpus=told.gpus)
    monkeypatch.setattr("ray.cluster_resources", lambda: scaled("RayService")["head"]["resources"])
    for one in _applications():
        module, _, name = one["import_path"].partition(":")
        built = getattr(importlib.import_module(module), name)(one["args"])
        assert one["name"] == one["args"]["model"]
        expected, _ = _application(spec_of(one["name"]), options)
        assert built._bound_deployment.name == expected, "else each would put its own in the other's place"


@pytest.mark.parametrize(
    "page", ["cluster.yaml", "docs/cluster.md", "jobs/kuberay/rayjob.yaml", "jobs/kuberay/rayservice.yaml"]
)
def test_every_path_that_is_named_exists(page: str) -> None:
    named = re.findall(
        r"(?<![\w/.-])((?:earthmap|tests|jobs|docs)/[\w./-]*\w)", (ROOT / page).read_text(encoding="utf-8")
    )
    assert named
    missing = [path for path in named if not (ROOT / path).exists()]
    assert missing == []
