"""Pictures of the scene and the panel: Slicer's real slice and 3D rendering, into PNG files, without a screen."""

import functools
import subprocess
import sys
from pathlib import Path

import slicer
import vtk
from PIL import Image
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


def slice_png(
    path: str | Path, orientation: str = "Axial", offset: float | None = None, size: tuple[int, int] = (400, 400)
) -> Path:
    """A slice view: Axial, Coronal or Sagittal, at an offset in mm (None: where the view is), width x height pixels."""
    logic = slicer.app.applicationLogic().GetSliceLogicByLayoutName(VIEW_OF_ORIENTATION[orientation])
    node = logic.GetSliceNode()
    node.SetOrientation(orientation)
    node.SetDimensions(*size, 1)
    logic.FitSliceToAll(*size)
    logic.SnapSliceOffsetToIJK()
    if offset is not None:
        logic.SetSliceOffset(offset)
    drawing = Drawing(node, slicer.vtkMRMLSliceViewDisplayableManagerFactory.GetInstance(), SLICE_MANAGERS, size)
    mapper, actor = vtk.vtkImageMapper(), vtk.vtkActor2D()
    mapper.SetColorWindow(255)
    mapper.SetColorLevel(127.5)
    if logic.GetImageDataConnection() is not None:
        mapper.SetInputConnection(logic.GetImageDataConnection())
        actor.SetMapper(mapper)
        actor.GetProperty().SetDisplayLocationToBackground()
        drawing.renderer.AddViewProp(actor)
    return drawing.save(path)


def view3d_png(path: str | Path, size: tuple[int, int] = (400, 400), direction: tuple = (0, 1, 0)) -> Path:
    """The 3D view, fitted to what it shows; `direction` (RAS) points from the middle to the eye: front by default."""
    widget = slicer.app.layoutManager().threeDWidget(0)
    node = widget.mrmlViewNode()
    node.SetBoxVisible(False)
    node.SetAxisLabelsVisible(False)
    drawing = Drawing(node, slicer.vtkMRMLThreeDViewDisplayableManagerFactory.GetInstance(), VIEW_MANAGERS, size)
    camera = drawing.renderer.GetActiveCamera()
    middle = camera.GetFocalPoint()
    camera.SetPosition(*(a + 100 * b for a, b in zip(middle, direction, strict=True)))
    camera.SetViewUp(0, 0, 1)
    drawing.renderer.ResetCamera()
    return drawing.save(path)


def panel_png(path: str | Path, widget: QtWidgets.QWidget, width: int = 400) -> Path:
    """The panel as a picture, as high as its contents want."""
    height = max(widget.sizeHint.height(), widget.minimumSizeHint.height())
    widget.resize(width, height)
    QtCore.QCoreApplication.processEvents()
    if not widget.grab().save(str(path)):
        raise OSError(f"{path} could not be written")
    return Path(path)


def compose(path: str | Path, panel: str | Path, slices: list, view3d: str | Path) -> Path:
    """Slicer's window: the panel at the left, the 3D view and up to three slices (files) in two rows beside it."""
    images = [Image.open(name).convert("RGB") for name in (view3d, *slices)]
    width, height = (max(getattr(image, side) for image in images) for side in ("width", "height"))
    left = Image.open(panel).convert("RGB")
    gap = 4
    sheet = Image.new("RGB", (left.width + 2 * width + 2 * gap, max(left.height, 2 * height + gap)), (60, 60, 60))
    sheet.paste(left, (0, 0))
    # Slicer's four-up layout: axial and 3D above, coronal and sagittal below.
    places = [(1, 0), (0, 0), (0, 1), (1, 1)]
    for image, (column, row) in zip(images, places, strict=False):
        sheet.paste(image, (left.width + gap + column * (width + gap), row * (height + gap)))
    sheet.save(path)
    return Path(path)
