"""Node power by Redfish (DMTF DSP0266; schemas Chassis, EnvironmentMetrics, Power of DSP2046, 2024.1).

/redfish/v1/Chassis -> the chassis that is the node -> EnvironmentMetrics.PowerWatts.Reading, else
Power.PowerControl[0].PowerConsumedWatts. Of PowerControl only the first counts: it is the chassis on most makers'
boards, further ones are its parts (Lenovo: CPU, memory), and a sum would count them twice.

EnvironmentMetrics.EnergykWh is a counter only where it is finer than four decimals: at 0.001 kWh = 3 600 J a node of
400 W moves it each 9 s, which tells less than its power does.

Certificates are always verified. A controller's own, self-signed one is trusted by naming it as `ca_file`.
"""

import base64
import ipaddress
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import msgspec

from collectors.bmc import NodeReading
from collectors.errors import Broken, RetryLater
from collectors.http_page import KeptConnection
from collectors.units import JOULES_PER_KILOWATT_HOUR

if TYPE_CHECKING:
    import ssl

TIMEOUT_SECONDS: Final = 5.0
ROOT: Final = "/redfish/v1/Chassis"
MOST_CHASSIS: Final = 64
"""Boards with many GPUs list each as a chassis (about 40); more is no node."""
FINE_DECIMALS: Final = 4
_OK, _UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND, _SERVER_ERROR = 200, 401, 403, 404, 500
_BUSY: Final = frozenset({408, 429})

Resource = Mapping[str, Any]


class RedfishPower:
    """A NodePower. `url` is the controller's ("https://bmc-17.example.net"), `ca_file` the certificate to trust.

    The password is read from its file at each opening, so that a new one needs no restart.
    """

    def __init__(
        self,
        url: str,
        *,
        user: str,
        password_file: Path,
        ca_file: Path | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> None:
        self._url, self._user, self._password_file, self._ca_file = url.rstrip("/"), user, password_file, ca_file
        self._timeout = timeout_seconds
        self._connection: KeptConnection | None = None
        self._target = ""
        self._fine = False
        self.hardware = ""
        self.mend = "correct url, user and password_file under [collect.bmc]"

    @property
    def described(self) -> str:
        """The address, and the resource once it is found."""
        return f"Redfish {self._url}{self._target}"

    def open(self) -> None:
        """Finds the node's chassis and which of its resources tells power."""
        self.close()
        headers = {
            "Authorization": f"Basic {self._credentials()}",
            "Accept": "application/json",
            "OData-Version": "4.0",
        }
        self._connection = KeptConnection(
            self._url, timeout_seconds=self._timeout, headers=headers, tls=self._tls_context()
        )
        self._target = self._found()

    def read(self) -> NodeReading:
        """One request. A resource that has gone is looked for anew."""
        resource = self._get(self._target)
        if resource is None:
            self._target = self._found()
            raise RetryLater(f"{self.described}: moved while it was asked")
        reading = _reading(resource)
        self._fine = self._fine or (reading.energy_joules is not None and _is_fine(_energy_kwh(resource)))
        return reading if self._fine else NodeReading(power_watts=reading.power_watts)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _credentials(self) -> str:
        try:
            password = self._password_file.read_text().rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise Broken(f"{self._password_file}: the password cannot be read: {error}") from error
        return base64.b64encode(f"{self._user}:{password}".encode()).decode()

    def _tls_context(self) -> "ssl.SSLContext | None":
        if urlsplit(self._url).scheme != "https":
            if not _is_loopback(urlsplit(self._url).hostname or ""):
                raise Broken(f"{self._url}: over http the password would be readable on the network; write https://")
            return None
        import ssl

        try:
            return ssl.create_default_context(cafile=None if self._ca_file is None else str(self._ca_file))
        except OSError as error:
            raise Broken(f"ca_file {self._ca_file}: no certificate can be read from it: {error}") from error

    def _found(self) -> str:
        """The path of the resource that tells the node's power."""
        collection = self._get(ROOT)
        if collection is None:
            raise Broken(f"{self._url}: there is no {ROOT}; is it a Redfish controller?")
        chassis = [each for path in _members(collection)[:MOST_CHASSIS] if (each := self._get(path)) is not None]
        for each in sorted(chassis, key=_inwardness):
            for path in (_link(each, "EnvironmentMetrics"), _link(each, "Power")):
                if path and (resource := self._get(path)) is not None and _reading(resource).power_watts is not None:
                    self.hardware = " ".join(
                        str(each[key]).strip() for key in ("Manufacturer", "Model") if each.get(key)
                    )
                    return path
        raise Broken(f"{self._url}: none of its {len(chassis)} chassis tells PowerWatts or PowerConsumedWatts")

    def _get(self, path: str) -> Resource | None:
        """A resource; None where there is none."""
        connection = self._connection
        if connection is None:
            raise RetryLater(f"{self._url}: not open")
        try:
            page = connection.get(path)
        except Broken as error:
            self.mend = self._trust
            raise Broken(f"{error}; {self.mend}") from error
        if page.status == _OK:
            return _resource(page.body, f"{self._url}{path}")
        if page.status == _NOT_FOUND:
            return None
        if page.status in {_UNAUTHORIZED, _FORBIDDEN}:
            self.mend = f"correct user and {self._password_file}: the user needs the right Login, nothing more"
            raise Broken(f"{self._url}{path}: HTTP status {page.status}: user {self._user!r} is refused; {self.mend}")
        if page.status in _BUSY or page.status >= _SERVER_ERROR:
            raise RetryLater(f"{self._url}{path}: HTTP status {page.status}")
        raise Broken(f"{self._url}{path}: HTTP status {page.status}; write the url that it answers under")

    @property
    def _trust(self) -> str:
        parts = urlsplit(self._url)
        address = f"{parts.hostname}:{parts.port or 443}"
        return (
            f"save it with `openssl s_client -connect {address} </dev/null | openssl x509 > FILE`, compare its"
            " fingerprint with the controller's own page, and name FILE as ca_file and its name in url"
        )


def _resource(body: bytes, where: str) -> Resource:
    try:
        resource = msgspec.json.decode(body)
    except msgspec.DecodeError as error:
        raise RetryLater(f"{where}: no JSON: {error}") from error
    if not isinstance(resource, dict):
        raise RetryLater(f"{where}: no Redfish resource")
    return resource


def _members(collection: Resource) -> Sequence[str]:
    members = collection.get("Members")
    return [path for each in members if (path := _path(each))] if isinstance(members, list) else []


def _link(resource: Resource, name: str) -> str:
    return _path(resource.get(name))


def _path(link: object) -> str:
    """Where a link leads on this server, "" where it leads elsewhere: the password goes nowhere else."""
    path = link.get("@odata.id") if isinstance(link, dict) else None
    return path if isinstance(path, str) and path.startswith("/") and not path.startswith("//") else ""


def _inwardness(chassis: Resource) -> tuple[bool, bool]:
    """The outermost chassis first, and of these the one that holds a computer."""
    links = chassis.get("Links")
    links = links if isinstance(links, dict) else {}
    return bool(links.get("ContainedBy")), not links.get("ComputerSystems")


def _reading(resource: Resource) -> NodeReading:
    """What EnvironmentMetrics or Power tells."""
    sensor, controls = resource.get("PowerWatts"), resource.get("PowerControl")
    if isinstance(sensor, dict):
        kwh = _energy_kwh(resource)
        joules = None if kwh is None else kwh * JOULES_PER_KILOWATT_HOUR
        return NodeReading(power_watts=_number(sensor.get("Reading")), energy_joules=joules)
    if isinstance(controls, list) and controls and isinstance(controls[0], dict):
        return NodeReading(power_watts=_number(controls[0].get("PowerConsumedWatts")))
    return NodeReading()


def _energy_kwh(resource: Resource) -> float | None:
    sensor = resource.get("EnergykWh")
    return _number(sensor.get("Reading")) if isinstance(sensor, dict) else None


def _is_fine(kwh: float | None) -> bool:
    return kwh is not None and round(kwh, FINE_DECIMALS) != kwh


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
