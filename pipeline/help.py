"""A command's help with its options under headings: what rich's panels do, without rich and the colours it brings."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand


class HelpByTopic(TyperCommand):
    """A command whose options stand under what they name as `rich_help_panel`, in the order in which topics begin."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments, options of no topic, then topic by topic."""
        topics: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                usual = "Arguments" if parameter.param_type_name == "argument" else "Options"
                topic = getattr(parameter, "rich_help_panel", None) or usual
                topics.setdefault(topic, []).append(record)
        for topic, records in topics.items():
            if records:
                with formatter.section(topic):
                    formatter.write_dl(records)
