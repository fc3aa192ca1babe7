/* SPDX-License-Identifier: MIT */
/*
 * A prototype for every row of calls.def: many of the names (__read_chk, __poll...) are in no header of
 * libc.
 */
#ifndef PG_PROTOS_H
#define PG_PROTOS_H

#include "shim/shim.h"

#define C(kind, family, version, ret, name, params, args) PG_EXPORT extern ret name params;
#include "shim/calls.def"
#undef C

#endif
