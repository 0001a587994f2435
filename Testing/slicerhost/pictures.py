"""Pictures of the scene and the panel: Slicer's real slice and 3D rendering, into PNG files, without a screen."""

import functools
import subprocess
import sys
from pathlib import Path

import slicer
import vtk
from PIL import Image, ImageDraw
from PySide6 import QtCore, QtWidgets

SLICE_MANAGERS = (
    "vtkMRMLVolumeGlyphSliceDisplayableManager",
    "vtkMRMLModelSliceDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager2D",
    "vtkMRMLMarkupsDisplayableManager",
    "vtkMRMLColorLegendDisplayableManager",
    "vtkMRMLRulerDisplayableManager",
)
VIEW_MANAGERS = (
    "vtkMRMLCameraDisplayableManager",
    "vtkMRMLViewDisplayableManager",
    "vtkMRMLModelDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager3D",
    "vtkMRMLMarkupsDisplayableManager",
    "vtkMRMLColorLegendDisplayableManager",
)
VIEW_OF_ORIENTATION = {"Axial": "Red", "Coronal": "Green", "Sagittal": "Yellow"}
COLOURS, MOST_BYTES = (256, 128, 64, 32), 195_000
GAP, BAR_HEIGHT, BACKGROUND = 4, 18, (60, 60, 60)
# As in vtkMRMLSliceNode and the 3D view's own bar.
BAR_COLOURS = {"Red": (243, 74, 51), "Green": (110, 176, 75), "Yellow": (237, 213, 76), "3D": (116, 120, 190)}
# Tried in a process of its own, because VTK ends the process where no way to draw is found.
PROBE = "import vtk; w = vtk.vtkRenderWindow(); w.SetOffScreenRendering(1); w.Render(); print(w.GetClassName())"


@functools.cache
def why_not() -> str:
    """Why nothing can be drawn here, as a sentence; empty when it can."""
    run = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, timeout=60)
    return "" if run.returncode == 0 else "VTK cannot draw here: it wants EGL (libegl1 and libgl1-mesa-dri)."


class Drawing:
    """A render window with the displayable managers of one view."""

    def __init__(
        self, node: slicer.vtkMRMLAbstractViewNode, factory: vtk.vtkObject, managers: tuple, size: tuple
    ) -> None:
        self.window = vtk.vtkRenderWindow()
        self.window.SetOffScreenRendering(1)
        self.window.SetMultiSamples(0)
        self.window.SetSize(*size)
        self.renderer = vtk.vtkRenderer()
        self.window.AddRenderer(self.renderer)
        self.interactor = vtk.vtkGenericRenderWindowInteractor()
        self.interactor.SetRenderWindow(self.window)
        factory.SetMRMLApplicationLogic(slicer.app.applicationLogic())
        for name in managers:
            if not factory.IsDisplayableManagerRegistered(name):
                factory.RegisterDisplayableManager(name)
        node.SetMappedInLayout(1)
        self.group = slicer.vtkMRMLDisplayableManagerGroup()
        self.group.Initialize(factory, self.renderer)
        self.group.SetMRMLDisplayableNode(node)

    def save(self, path: str | Path) -> Path:
        """Draw and write a PNG file."""
        self.window.Render()
        grab = vtk.vtkWindowToImageFilter()
        grab.SetInput(self.window)
        grab.ReadFrontBufferOff()
        writer = vtk.vtkPNGWriter()
        writer.SetInputConnection(grab.GetOutputPort())
        writer.SetFileName(str(path))
        writer.Write()
        return Path(path)


class SliceView(Drawing):
    """A slice view: Axial, Coronal or Sagittal, fitted to what it shows."""

    def __init__(self, orientation: str, size: tuple[int, int]) -> None:
        self.logic = slicer.app.applicationLogic().GetSliceLogicByLayoutName(VIEW_OF_ORIENTATION[orientation])
        self.node, self.size = self.logic.GetSliceNode(), size
        self.node.SetOrientation(orientation)
        self.node.SetDimensions(*size, 1)
        factory = slicer.vtkMRMLSliceViewDisplayableManagerFactory.GetInstance()
        super().__init__(self.node, factory, SLICE_MANAGERS, size)
        self.fit()

    def fit(self, zoom: float = 1.0) -> None:
        """Show everything, or the middle of it larger."""
        self.logic.FitSliceToAll(*self.size)
        self.logic.SnapSliceOffsetToIJK()
        width, height, depth = self.node.GetFieldOfView()
        self.node.SetFieldOfView(width / zoom, height / zoom, depth)

    def save(self, path: str | Path) -> Path:
        """Draw and write a PNG file."""
        mapper, actor = vtk.vtkImageMapper(), vtk.vtkActor2D()
        mapper.SetColorWindow(255)
        mapper.SetColorLevel(127.5)
        if self.logic.GetImageDataConnection() is not None:
            mapper.SetInputConnection(self.logic.GetImageDataConnection())
            actor.SetMapper(mapper)
            actor.GetProperty().SetDisplayLocationToBackground()
            self.renderer.AddViewProp(actor)
        super().save(path)
        self.renderer.RemoveViewProp(actor)
        return Path(path)


class View3D(Drawing):
    """The 3D view."""

    def __init__(self, size: tuple[int, int]) -> None:
        node = slicer.app.layoutManager().threeDWidget(0).mrmlViewNode()
        node.SetBoxVisible(False)
        node.SetAxisLabelsVisible(False)
        factory = slicer.vtkMRMLThreeDViewDisplayableManagerFactory.GetInstance()
        super().__init__(node, factory, VIEW_MANAGERS, size)

    def fit(self, direction: tuple = (0, 1, 0), zoom: float = 1.0) -> None:
        """Show everything, or the middle of it larger; `direction` (RAS) points from the middle to the eye."""
        camera = self.renderer.GetActiveCamera()
        middle = camera.GetFocalPoint()
        camera.SetPosition(*(a + 100 * b for a, b in zip(middle, direction, strict=True)))
        camera.SetViewUp(0, 0, 1)
        self.renderer.ResetCamera()
        camera.Dolly(zoom)
        self.renderer.ResetCameraClippingRange()


def slice_png(
    path: str | Path, orientation: str = "Axial", offset: float | None = None, size: tuple[int, int] = (400, 400)
) -> Path:
    """A fitted slice view at an offset in mm (None: where the view is), width x height pixels."""
    view = SliceView(orientation, size)
    if offset is not None:
        view.logic.SetSliceOffset(offset)
    return view.save(path)


def view3d_png(path: str | Path, size: tuple[int, int] = (400, 400), direction: tuple = (0, 1, 0)) -> Path:
    """The 3D view, fitted to what it shows; `direction` (RAS) points from the middle to the eye: front by default.

    A colour legend is drawn only by a `View3D` that was there before it, as Slicer's views are.
    """
    view = View3D(size)
    view.fit(direction)
    return view.save(path)


def panel_png(path: str | Path, widget: QtWidgets.QWidget, width: int = 400) -> Path:
    """The panel as a picture, high enough for its contents as they are now."""
    QtCore.QCoreApplication.processEvents()  # The layout learns of text that was set just before.
    height = max(widget.sizeHint.height(), widget.minimumSizeHint.height())
    widget.resize(width, height)
    QtCore.QCoreApplication.processEvents()
    if not widget.grab().save(str(path)):
        raise OSError(f"{path} could not be written")
    return Path(path)


def compose(path: str | Path, panel: str | Path, slices: list, view3d: str | Path) -> Path:
    """Slicer's conventional layout: the panel at the left, the 3D view (files) above a row of axial, coronal, sagittal.

    Each view is below its bar in the colour that Slicer gives it.
    """
    left, above, *row = (Image.open(name).convert("RGB") for name in (panel, view3d, *slices))
    width = max(above.width, sum(image.width for image in row) + GAP * (len(row) - 1))
    height = above.height + max(image.height for image in row) + 2 * BAR_HEIGHT + GAP
    sheet = Image.new("RGB", (left.width + GAP + width, max(left.height, height)), BACKGROUND)
    sheet.paste(left.getpixel((left.width - 1, left.height - 1)), (0, 0, left.width, sheet.height))
    sheet.paste(left, (0, 0))
    _paste_view(sheet, above, (left.width + GAP, 0), "3D")
    x = left.width + GAP
    for image, name in zip(row, VIEW_OF_ORIENTATION.values(), strict=False):
        _paste_view(sheet, image, (x, above.height + BAR_HEIGHT + GAP), name)
        x += image.width + GAP
    return save_small(sheet, path)


def save_small(picture: Image.Image, path: str | Path) -> Path:
    """Write a PNG file of at most 256 colours, which is a fifth of the size; rare colours keep their hue.

    Where the file would be larger than `MOST_BYTES` it has fewer colours.
    """
    for count in COLOURS:
        colours = picture.convert("RGB").quantize(count, Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE)
        colours.save(path, optimize=True)
        if Path(path).stat().st_size < MOST_BYTES:
            break
    return Path(path)


def _paste_view(sheet: Image.Image, view: Image.Image, corner: tuple[int, int], name: str) -> None:
    x, y = corner
    draw = ImageDraw.Draw(sheet)
    draw.rectangle((x, y, x + view.width - 1, y + BAR_HEIGHT - 1), BAR_COLOURS[name])
    draw.text((x + 5, y + 3), name[0] if name != "3D" else "1", (20, 20, 20))
    sheet.paste(view, (x, y + BAR_HEIGHT))
