package sama5

// For tests.
var (
	FindPreset = func(v any) []int { return findPreset(v) }
	Presets    = len(presets)
)
