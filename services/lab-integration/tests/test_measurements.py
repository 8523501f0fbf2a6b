"""What those who watch are told about results on their way to the chart."""

from clinic_lab_integration.measurements import measure_filing
from clinic_shared.metrics import REGISTRY

from .conftest import Laboratory


def sample_of(name: str) -> float:
    return REGISTRY.get_sample_value(name) or 0


async def measure(lab: Laboratory) -> None:
    async with lab.lab.runtime.database.transaction() as tx:
        await measure_filing(lab.lab.runtime, tx)


async def test_a_group_is_in_flight_until_the_chart_has_filed_it(lab: Laboratory, sample) -> None:
    await lab.add_patient()
    filed = sample_of("clinic_lab_filing_seconds_count")
    await lab.send(sample("panel"))
    lab.lab.clock.advance(seconds=90)
    await measure(lab)
    assert sample_of("clinic_lab_groups_in_flight") == 1
    assert 90 <= sample_of("clinic_lab_oldest_in_flight_seconds") < 120
    assert sample_of("clinic_lab_filing_seconds_count") == filed
    waited = sample_of("clinic_lab_filing_seconds_sum")
    await lab.chart_files()
    await measure(lab)
    assert sample_of("clinic_lab_groups_in_flight") == sample_of("clinic_lab_oldest_in_flight_seconds") == 0
    assert sample_of("clinic_lab_filing_seconds_count") == filed + 1
    assert sample_of("clinic_lab_filing_seconds_sum") - waited >= 90
