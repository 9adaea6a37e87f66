package ui

func Printable(s string) string { return s }
