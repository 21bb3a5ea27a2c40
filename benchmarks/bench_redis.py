"""`make bench-redis`: a chat turn on a real Valkey, beside two PINGs and what others pay; where its
time goes; what goes over the wire; turn(), lists, a cluster. Each part is a module: redis_*.py."""

from benchmarks.report import Report
from benchmarks.valkey import on_valkey


def main() -> None:
    report = Report("redis", __doc__)
    with on_valkey("settings_redis") as url:
        # They import what needs Django's settings.
        from benchmarks import (
            redis_cluster,
            redis_crowd,
            redis_failover,
            redis_layers,
            redis_leases,
            redis_lists,
            redis_turns,
            redis_wire,
        )

        for table in (
            redis_turns,
            redis_layers,
            redis_failover,
            redis_wire,
            redis_leases,
            redis_crowd,
            redis_lists,
            redis_cluster,
        ):
            table.run(report, url)
    report.finish()


if __name__ == "__main__":
    main()
