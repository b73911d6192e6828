from .attention_map import attention_image as attention_image
from .attention_map import times_uniform as times_uniform
from .figure import overlay_figure as overlay_figure
from .picture import draw_overlay as draw_overlay
from .picture import overlay_page as overlay_page
