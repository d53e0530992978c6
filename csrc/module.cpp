// The Python module that, when imported, registers every operator of this library.
#include <Python.h>

PyMODINIT_FUNC PyInit__native(void) {
  static PyModuleDef module = {
      PyModuleDef_HEAD_INIT, "_native", nullptr, -1, nullptr, nullptr, nullptr, nullptr, nullptr};
  return PyModule_Create(&module);
}
