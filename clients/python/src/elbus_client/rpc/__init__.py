"""Calls in both directions: conversion, services, proxies, cursors (protocol section 7)."""
