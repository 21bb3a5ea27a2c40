"""`make bench-live`: requests on real servers, a thousand websockets that talk and five thousand
that do not, on one Valkey. The parts are live_requests.py and live_sockets.py."""

from benchmarks.report import Report
from benchmarks.valkey import on_valkey


def main() -> None:
    report = Report("live", __doc__)
    with on_valkey("live_project") as url:
        # They import what needs Django's settings.
        from benchmarks import live_requests, live_sockets

        live_requests.run(report, url)
        live_sockets.run(report, url)
    report.finish()


if __name__ == "__main__":
    main()
