package main

import (
	"image/color"
	"math"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// A chart is a drawing of lines over axes that are both logarithmic.
type chart struct {
	File   string `json:"file"` // its name, beside the JSON
	Title  string `json:"title"`
	X      axis   `json:"x"`
	Y      axis   `json:"y"`
	Curves []line `json:"lines"`
}

// An axis has a label, and ticks where they mean something to a reader.
type axis struct {
	Label string `json:"label"`
	Ticks []tick `json:"ticks"`
}

type tick struct {
	At    float64 `json:"at"`
	Label string  `json:"label"`
}

type line struct {
	Name   string       `json:"name"`
	Ours   bool         `json:"ours,omitempty"`
	Points [][2]float64 `json:"points"`
}

// strokes are the looks of lines, in the order they come: colours that differ
// for the colour-blind too (Okabe and Ito), ours solid, the others dashed.
func strokes() []color.Color {
	return []color.Color{
		color.RGBA{0x00, 0x72, 0xb2, 0xff},
		color.RGBA{0x56, 0xb4, 0xe9, 0xff},
		color.RGBA{0x00, 0x9e, 0x73, 0xff},
		color.RGBA{0xd5, 0x5e, 0x00, 0xff},
		color.RGBA{0xe6, 0x9f, 0x00, 0xff},
		color.RGBA{0xcc, 0x79, 0xa7, 0xff},
		color.RGBA{0x40, 0x40, 0x40, 0xff},
	}
}

// draw writes the chart as SVG.
func (c chart) draw(path string) error {
	p := plot.New()
	p.Title.Text = c.Title
	p.BackgroundColor = color.White // else it is black on a dark page
	setAxis(&p.X, c.X)
	setAxis(&p.Y, c.Y)
	p.Add(plotter.NewGrid())
	p.Legend.Top, p.Legend.Left = true, true
	p.Legend.Padding = vg.Points(2)
	looks := strokes()
	low, high := math.Inf(1), math.Inf(-1)
	for i, l := range c.Curves {
		var xys plotter.XYs
		for _, pt := range l.Points {
			xys = append(xys, plotter.XY{X: pt[0], Y: pt[1]})
			low, high = min(low, pt[1]), max(high, pt[1])
		}
		curve, points, err := plotter.NewLinePoints(xys)
		if err != nil {
			return err
		}
		curve.Color, points.Color = looks[i%len(looks)], looks[i%len(looks)]
		curve.Width, points.Shape = vg.Points(1.5), draw.CircleGlyph{}
		if !l.Ours {
			curve.Dashes = []vg.Length{vg.Points(5), vg.Points(2)}
		}
		p.Add(curve, points)
		p.Legend.Add(l.Name, curve, points)
	}
	p.Y.Min, p.Y.Max = low/1.5, high*30 // room for the legend
	return p.Save(22*vg.Centimeter, 13*vg.Centimeter, path)
}

// setAxis makes an axis logarithmic.
func setAxis(to *plot.Axis, a axis) {
	to.Label.Text = a.Label
	to.Scale = plot.LogScale{}
	var ticks []plot.Tick
	for _, t := range a.Ticks {
		ticks = append(ticks, plot.Tick{Value: t.At, Label: t.Label})
	}
	to.Tick.Marker = plot.ConstantTicks(ticks)
}
